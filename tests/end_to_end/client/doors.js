// A front door to try the client on: it serves a page, a list and a stream, and fails in the ways that doors fail.
//
//   node doors.js NAME     prints its URL, and ends with its stdin; /test tells of it, POST /test changes it
"use strict";
const http = require("http"), fs = require("fs"), path = require("path");
const { once } = require("events");

const CLIENT = path.join(__dirname, "../../../gateway/assets/daemun.js");

/** How a path, or all of them, is answered. A number is a status; `null` is as it should be. */
const FAILURES = {
  hang: () => {},
  cut: response => {
    response.writeHead(200, { "content-length": 1000 });
    response.write("half of", () => response.destroy());
  },
  stall: response => {
    response.writeHead(200, { "content-length": 1000 });
    response.write("half of");
  },
  rubbish: response => response.end("<html>Please log in to the hotel's network</html>"),
  empty: response => response.end(JSON.stringify({ v: 1, ttl: 15, servers: [] })),
  drip: response => {
    let left = 5;
    const beat = setInterval(() => (left-- ? response.write("drop ") : (clearInterval(beat), response.end())), 100);
  },
};

class Door {
  static async open(name) {
    const door = new Door(name);
    await door.listen(0);
    return door;
  }

  constructor(name) {
    this.name = name;
    this.list = null;
    this.failures = {}; // by path; "*" is all
    this.delay = 0; // of pings, milliseconds
    this.embeds = false; // the list in the page
    this.closed = false; // to pages of other doors
    this.notModified = 0;
    this.asked = []; // "METHOD /path?query"
    this.heads = [];
    this.watchers = new Set();
    this.sockets = new Set();
  }

  async listen(port) {
    this.server = http.createServer((request, response) => this.answer(request, response));
    this.server.on("connection", socket => {
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
    });
    this.server.listen(port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}/`;
  }

  /** Ends as a killed process does. */
  async die() {
    const closed = once(this.server, "close");
    this.server.close();
    this.sockets.forEach(socket => socket.resetAndDestroy());
    await closed;
  }

  rise() {
    return this.listen(this.port);
  }

  /** This door as a server of a list. */
  listed(more) {
    const { name, url } = this;
    return { name, role: "frontdoor", datacenter: name, url, health: "up", priority: 0, weight: 100, ...more };
  }

  /** Changes the list; those who watch get it at once. */
  publish(list) {
    this.list = list;
    this.watchers.forEach(response => response.write(event(list)));
  }

  count(what) {
    return this.asked.filter(asked => asked === what).length;
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, this.url);
    let body = "";
    for await (const part of request) body += part;
    if (pathname === "/test") return this.test(body, response);
    this.asked.push(`${request.method} ${request.url}`);
    this.heads.push(request.headers);
    if (!this.closed) response.setHeader("access-control-allow-origin", "*");
    const failure = this.failures[pathname] || this.failures["*"];
    if (typeof failure === "number") return response.writeHead(failure).end();
    if (failure) return FAILURES[failure](response);
    switch (pathname) {
      case "/": return response.setHeader("content-type", "text/html"), response.end(this.html());
      case "/daemun.js": return response.end(fs.readFileSync(CLIENT));
      case "/v1/ping": return setTimeout(() => response.writeHead(204).end(), this.delay);
      case "/v1/servers": return this.sendList(request, response);
      case "/v1/servers/watch": return this.stream(response);
      default: return response.end(JSON.stringify({ door: this.name, method: request.method, body }));
    }
  }

  html() {
    const embedded = JSON.stringify(this.list).replace(/</g, "\\u003c");
    return `<!doctype html><html><title>${this.name}</title><p>A page of ${this.name}.</p>
      <script src="/daemun.js"></script>${this.embeds
        ? `<script type="application/json" id="daemun-servers">${embedded}</script>` : ""}</html>`;
  }

  sendList(request, response) {
    const body = JSON.stringify(this.list), tag = `W/"${this.list.generation}"`;
    response.setHeader("etag", tag);
    response.setHeader("cache-control", "private, no-cache");
    if (request.headers["if-none-match"] === tag) {
      this.notModified += 1;
      return response.writeHead(304).end();
    }
    response.setHeader("content-type", "application/json");
    response.end(body);
  }

  stream(response) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write(event(this.list));
    this.watchers.add(response);
    response.on("close", () => this.watchers.delete(response));
  }

  /** For another process: changes it, or tells of it. */
  test(body, response) {
    response.setHeader("access-control-allow-origin", "*");
    const { list, ...changed } = body ? JSON.parse(body) : {};
    Object.assign(this, changed);
    if (list) this.publish(list);
    const { asked, notModified } = this;
    response.end(JSON.stringify({ asked, notModified, watchers: this.watchers.size }));
  }
}

function event(list) {
  return `id: ${list.generation}\ndata: ${JSON.stringify(list)}\n\n`;
}

module.exports = { Door, CLIENT };

if (require.main === module) {
  Door.open(process.argv[2]).then(door => {
    door.list = { v: 1, generation: 1, ttl: 1, doors: [door.url], servers: [door.listed()] };
    console.log(door.url);
  });
  process.stdin.resume().on("end", () => process.exit());
}
