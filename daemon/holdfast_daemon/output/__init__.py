"""What commands print: kept by offset, cleaned for people and models, searched."""
