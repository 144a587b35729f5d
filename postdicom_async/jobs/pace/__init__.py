"""When and how fast a job may work, how it handles outages, and the control socket of a running job."""
