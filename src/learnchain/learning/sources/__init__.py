"""Importers of data sets in the layouts they are published in; every file is hostile until its sizes are checked."""
