"""Commands: one command, one outcome, always as a job."""
