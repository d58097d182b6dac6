//! `USER` against the image's `/etc/passwd` and `/etc/group`. Pure: who reads the files limits their size.
