"""The lab: whole networks in virtual time, measured from outside; nothing in the product depends on it."""
