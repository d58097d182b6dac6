FROM scratch AS Build
ENV GREETING=hello
ENV OTHER=$GREETNG
COPY --chmod=9x a b /c
RUN --mount=type=cache,target=/root/.cache \
    pip install x
WORKDIR ${broken
STOPSIGNAL SIGTREM

FROM Build
COPY --from=$x a b
	COPY --from=7 a b
