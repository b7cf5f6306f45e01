"""Files and trees between this machine and hosts."""
