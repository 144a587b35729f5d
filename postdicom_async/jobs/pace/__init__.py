"""When a job may work and how fast, what it does when an end is out of order, and how a running one is told."""
