"""What is wrong, and the next step: a small check each, values in, findings out."""
