//! tutorials
