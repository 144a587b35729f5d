"""What servers, networks, disks and callers do wrong, on real sockets."""
