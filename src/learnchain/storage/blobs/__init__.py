"""Large content by its CID: files on disk, and their exchange with peers."""
