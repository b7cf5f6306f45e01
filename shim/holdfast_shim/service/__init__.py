"""The daemon as a service of the user's own manager: systemd or launchd."""
