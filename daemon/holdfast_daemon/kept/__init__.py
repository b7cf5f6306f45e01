"""What is kept on hosts: shells and commands that need no connection to go on."""
