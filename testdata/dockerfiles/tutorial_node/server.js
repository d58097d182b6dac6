// Answers one request, which it makes itself.
const http = require("http");
const isNumber = require("is-number");

const server = http.createServer((_, response) => response.end(`7 is ${isNumber("7") ? "a" : "no"} number\n`));
server.listen(0, "127.0.0.1", () => {
  http.get(`http://127.0.0.1:${server.address().port}/`, (response) => {
    response.pipe(process.stdout);
    response.on("end", () => server.close());
  });
});
