"""Scripts about the repository; none of them is shipped."""
