"""What the site of the documentation has besides its pages."""
