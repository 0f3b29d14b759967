// The page /hpsearch on Dask's dashboard: the searches on this cluster. It only looks.
import { LiveView } from "./live.js";

const EVERY_MS = 1500;
const views = new Map();
const main = document.querySelector("main");

async function step() {
  if (!document.hidden) {
    try {
      const answer = await fetch("hpsearch/state");
      const { runs } = await answer.json();
      for (const [id, view] of views) {
        if (!runs.some((run) => run.id === id)) {
          view.root.remove();
          views.delete(id);
        }
      }
      for (const run of [...runs].reverse()) {
        if (!views.has(run.id)) {
          const root = document.createElement("div");
          main.prepend(root);
          views.set(run.id, new LiveView(root, async () => ""));
        }
        views.get(run.id).update(run);
      }
    } catch {
      // The scheduler has ended; what was shown last stays.
    }
  }
  setTimeout(step, EVERY_MS);
}

step();
