"""Accounts, contracts and payloads behind one door; synchronous over an injected key-value store."""
