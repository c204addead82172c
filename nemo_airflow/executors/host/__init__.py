"""What all back-ends on the shell of a host share: the folders of jobs there, and a driver on them."""
