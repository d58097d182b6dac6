//! Scripted builds, and what each display makes of them.
