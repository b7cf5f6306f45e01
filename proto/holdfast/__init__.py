"""holdfast: the contract `holdfast.v1` and what is derived from it."""
