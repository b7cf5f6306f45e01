"""Who may do what, and the one door every call passes."""
