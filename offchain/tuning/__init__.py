"""Choosing circuit settings: what is exact, what it will cost on this machine, and which choice costs least."""
