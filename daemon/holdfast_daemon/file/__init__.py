"""Files on hosts: what is sent to read, change, list and search them, and the answers.

One command a call, in POSIX sh, on a connection that is held; sans-I/O but for
`errand` (runs a script on a host), `remote` (SFTP) and `files` (the six verbs).
"""
