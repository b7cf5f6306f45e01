"""What a tree is, and what makes one like another. Sans-I/O."""
