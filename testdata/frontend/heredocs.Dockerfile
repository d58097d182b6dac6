FROM debian
ARG NAME=world
RUN <<SETUP
set -e
apt-get update
SETUP
RUN <<PY
#!/usr/bin/env python3
print("hello")
PY
RUN cat <<A >/a && cat <<-'B' >/b
$NAME
A
	literal $NAME
	B
COPY <<motd <<"raw" /etc/
hello ${NAME}
motd
hello ${NAME}
raw
