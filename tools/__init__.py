"""What makes the book: execute the chapters, stage and build the pages, hold the house to its rules."""
