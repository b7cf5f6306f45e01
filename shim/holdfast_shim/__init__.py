"""The holdfast shim: MCP stdio server and command line over the daemon."""
