"""Accounts, contracts and payloads behind one door; no clock, no disk, no network: a store is handed in."""
