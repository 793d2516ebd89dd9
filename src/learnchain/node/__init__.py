"""All input and output: clock, network, storage, roles, interfaces."""
