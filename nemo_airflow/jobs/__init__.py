"""Jobs under way: facts of the back-ends are judged here, once for all of them, and each job is followed to its end."""
