// The page compiled in, kept fresh: the list of servers as /daemun.js knows it, and what the door last said of itself.
(() => {
  "use strict";
  const client = daemun({ role: "frontdoor" });
  const rows = document.getElementById("servers");
  const news = document.getElementById("news");
  const title = document.title;
  const cell = (row, text) => (row.insertCell().textContent = text);
  const worst = (servers) => {
    if (servers.every((server) => server.health === "down")) return "down";
    return servers.some((server) => server.health === "up" || server.health === "unknown") ? "serving" : "between";
  };
  const show = (list) => {
    rows.textContent = "";
    for (const server of list.servers) {
      const row = rows.insertRow();
      row.className = server.health;
      const link = document.createElement("a");
      // Whatever the list says, it is no script.
      if (/^https?:/.test(server.url)) link.href = server.url;
      link.textContent = server.name;
      row.insertCell().append(link);
      cell(row, server.role);
      cell(row, server.datacenter);
      cell(row, server.health);
    }
    for (const at of document.querySelectorAll("svg g")) {
      const there = list.servers.filter((server) => "at-" + server.datacenter === at.id);
      if (there.length) at.setAttribute("class", worst(there));
    }
  };
  let stale = false;
  const say = () => {
    const list = client.list;
    if (!list.issued) return;
    const when = new Date(list.issued).toLocaleTimeString();
    news.className = stale ? "stale" : "";
    news.textContent = stale
      ? "No door answers: this is the list of " + when + "."
      : "Generation " + list.generation + " of the fleet view, from " + list.door.datacenter + ", " + when + ".";
    document.title = (stale ? "⚠ " : "") + title;
  };
  client.on(show);
  if (client.list.servers.length) show(client.list);
  const look = async () => {
    const before = client.list;
    stale = (await client.refresh()) === before;
    say();
  };
  setInterval(look, 5000);
  look();
})();
