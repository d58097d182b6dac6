//! A window in memory, to see what a terminal would show.
