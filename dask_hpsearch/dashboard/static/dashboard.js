// The pages of the dashboard: the list of runs, and one run.
import { LiveView } from "/static/live.js";

const { page, token } = document.body.dataset;
const LIST_EVERY_MS = 3000;
const RUN_EVERY_MS = 1000;

const one = (selector, root = document) => root.querySelector(selector);

function cell(content, className = "", title = "") {
  const made = document.createElement("td");
  if (content instanceof Node) made.append(content);
  else made.textContent = content;
  if (className) made.className = className;
  if (title) made.title = title;
  return made;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

function act(path) {
  return ask(path, { method: "POST", headers: { "X-Dask-HPSearch-Token": token } }).then((a) =>
    a.json(),
  );
}

/** Calls a function again and again while the page is in sight; says if the server is gone. */
function repeat(work, everyMs) {
  const lost = document.createElement("p");
  lost.className = "lost";
  lost.setAttribute("role", "alert");
  const step = async () => {
    let pause = everyMs;
    if (!document.hidden) {
      try {
        pause = (await work()) || everyMs;
        lost.remove();
      } catch (error) {
        lost.textContent = error instanceof TypeError ? "The dashboard's server has ended." : error.message;
        document.body.append(lost);
      }
    }
    setTimeout(step, pause);
  };
  document.addEventListener("visibilitychange", () => document.hidden || work().catch(() => {}));
  return step();
}

function duration(seconds) {
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** Lets the heads of a table choose its order. */
function sortable(head, order, changed) {
  for (const th of head.querySelectorAll("th[data-sort]")) {
    const choose = () => {
      const same = order.by === th.dataset.sort;
      order.descending = same ? !order.descending : th.classList.contains("number");
      order.by = th.dataset.sort;
      changed();
    };
    th.tabIndex = 0;
    th.addEventListener("click", choose);
    th.addEventListener("keydown", (event) => event.key === "Enter" && choose());
  }
}

function showOrder(head, order) {
  for (const th of head.querySelectorAll("th[data-sort]")) {
    if (th.dataset.sort === order.by) {
      th.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    } else th.removeAttribute("aria-sort");
  }
}

// --- all runs ---------------------------------------------------------------------------

function runRow(run) {
  const row = document.createElement("tr");
  const link = document.createElement("a");
  link.href = `/runs/${run.id}`;
  link.textContent = run.name || run.search;
  const name = document.createElement("div");
  const small = document.createElement("small");
  small.textContent = run.name ? `${run.search} · ${run.id}` : run.id;
  name.append(link, small);
  const chip = document.createElement("template");
  chip.innerHTML = run.chip; // from the server's fixed words
  const fits = document.createElement("span");
  const bar = document.createElement("progress");
  bar.max = Math.max(run.total, run.done, 1);
  bar.value = run.done;
  if (run.state === "finished") bar.className = "dhps-done";
  else if (run.state !== "running" && run.state !== "starting") bar.className = "ended";
  const failed = run.failed ? ` · ${run.failed} failed` : "";
  fits.append(bar, `${run.done.toLocaleString("en")} / ${run.total.toLocaleString("en")}${failed}`);
  row.append(
    cell(name),
    cell(chip.content),
    cell(run.score_text || "\u2013", "number score"),
    cell(fits),
    cell(duration(run.elapsed), "number"),
    cell(age(Date.now() / 1000 - run.created), "number", new Date(run.created * 1000).toLocaleString()),
  );
  return row;
}

function showRuns() {
  const head = one(".runs thead");
  const body = one(".runs tbody");
  const order = { by: "created", descending: true };
  let runs = [];
  one(".store").textContent = document.body.dataset.store;
  const show = () => {
    const words = one(".find").value.toLowerCase();
    const found = runs.filter((run) =>
      `${run.name} ${run.search} ${run.state} ${run.id}`.toLowerCase().includes(words),
    );
    const rank = (run) => run[order.by] ?? Number.NEGATIVE_INFINITY;
    found.sort((a, b) => {
      const [x, y] = order.descending ? [rank(b), rank(a)] : [rank(a), rank(b)];
      return x < y ? -1 : x > y ? 1 : 0;
    });
    body.replaceChildren(...found.map(runRow));
    showOrder(head, order);
    const empty = one(".empty");
    empty.hidden = found.length > 0;
    empty.textContent = runs.length ? "No search has these words." : "No searches here yet.";
  };
  sortable(head, order, show);
  one(".find").addEventListener("input", show);
  repeat(async () => {
    runs = (await (await ask("/api/runs")).json()).runs;
    show();
    return runs.some((run) => run.state === "…") ? 300 : LIST_EVERY_MS;
  }, LIST_EVERY_MS);
}

// --- one run ----------------------------------------------------------------------------

function showRun(id) {
  const path = `/api/runs/${id}`;
  const root = document.createElement("div");
  const view = new LiveView(root, async ({ action }) => {
    const { said } = await act(`${path}/${action}`);
    return said;
  });
  const trials = showTrials(path);
  const logs = showLogs(path);
  repeat(async () => {
    const state = await (await ask(path)).json();
    if (!root.isConnected) one(".live").replaceChildren(root);
    view.update(state);
    showSlices(state.slices);
    const key = `${state.facts.fits_done} ${state.state}`;
    await trials(key);
    await logs(key);
    return state.ended ? 5000 : RUN_EVERY_MS;
  }, RUN_EVERY_MS);
}

let slicesShown = "";
function showSlices(slices) {
  const key = slices.map(({ svg }) => svg).join("");
  if (key === slicesShown) return;
  slicesShown = key;
  one(".slices").hidden = !slices.length;
  one(".charts").replaceChildren(
    ...slices.map(({ name, svg }) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = name;
      const chart = document.createElement("template");
      chart.innerHTML = svg; // the server has escaped all texts of users
      figure.append(caption, chart.content);
      return figure;
    }),
  );
}

function showTrials(path) {
  const section = one(".trials");
  const head = one("thead", section);
  const order = { by: "score", descending: true };
  const limit = 50;
  let offset = 0;
  let columns = null;
  let shown = "";
  let timer = 0;

  const load = async () => {
    const query = new URLSearchParams({
      sort: order.by,
      order: order.descending ? "desc" : "asc",
      q: one(".find", section).value,
      status: one(".status", section).value,
      offset,
      limit,
    });
    const page = await (await ask(`${path}/trials?${query}`)).json();
    if (offset && offset >= page.found) {
      offset = 0;
      return load();
    }
    if (columns !== page.params.join("\n")) {
      columns = page.params.join("\n");
      const heads = [["candidate", "#", "number"], ["score", "score", "number"], ["status", "status", ""]];
      heads.push(...page.params.map((name) => [`param:${name}`, name.split("__").pop(), "", name]));
      heads.push(["fits", "fits", "number"], ["ended", "ended", "number"]);
      const row = document.createElement("tr");
      for (const [sort, text, kind, title] of heads) {
        const th = document.createElement("th");
        th.dataset.sort = sort;
        th.scope = "col";
        th.textContent = text;
        th.className = kind;
        th.title = title || text;
        row.append(th);
      }
      head.replaceChildren(row);
      sortable(head, order, again);
    }
    showOrder(head, order);
    one("tbody", section).replaceChildren(
      ...page.rows.map((trial) => {
        const row = document.createElement("tr");
        const ended = trial.ended ? new Date(trial.ended * 1000) : null;
        row.append(
          cell(trial.candidate, "number"),
          cell(trial.score === null ? "\u2013" : trial.score.toPrecision(5), "number"),
          cell(trial.status, `status-${trial.status}`),
          ...page.params.map((name) => cell(trial.params[name] ?? "\u2013", "", trial.params[name])),
          cell(trial.fits, "number"),
          cell(ended ? ended.toLocaleTimeString() : "\u2013", "number", ended ? ended.toLocaleString() : ""),
        );
        return row;
      }),
    );
    const last = Math.min(offset + limit, page.found);
    const of = page.found === page.total ? "" : ` (of ${page.total.toLocaleString("en")})`;
    one(".place", section).textContent = page.found
      ? `${offset + 1}\u2013${last} of ${page.found.toLocaleString("en")}${of}`
      : `none${of}`;
    one(".before", section).disabled = offset === 0;
    one(".after", section).disabled = last >= page.found;
  };
  const again = () => {
    offset = 0;
    load().catch(() => {});
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(again, 200);
  };
  one(".find", section).addEventListener("input", soon);
  one(".status", section).addEventListener("change", again);
  const turn = (by) => {
    offset = Math.max(0, offset + by);
    load().catch(() => {});
  };
  one(".before", section).addEventListener("click", () => turn(-limit));
  one(".after", section).addEventListener("click", () => turn(limit));
  return async (key) => {
    if (key === shown) return;
    await load();
    shown = key;
  };
}

function showLogs(path) {
  const details = one(".logs");
  const load = async () => {
    const pre = one("pre", details);
    pre.textContent = (await (await ask(`${path}/logs`)).text()) || "no logs: the search runs in the process that called fit";
    pre.scrollTop = pre.scrollHeight;
  };
  details.addEventListener("toggle", () => details.open && load().catch(() => {}));
  return async () => {
    if (details.open) await load();
  };
}

if (page === "runs") showRuns();
if (page === "run") showRun(document.body.dataset.run);
