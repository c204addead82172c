"""What people look at: a form, a tree, a picture, Python code, a history and differences of configs."""
