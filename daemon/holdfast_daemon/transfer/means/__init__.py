"""What every copy has to do its work with."""
