// The live view of a run, for notebooks (as an anywidget) and for the dashboard.
//
// The kernel or server renders the sections; this module puts them in place, keeps the
// controls, and shows times in the reader's time zone. It loads nothing else.

const REPLY_TIMEOUT_MS = 4000;

const QUESTIONS = {
  stop: {
    label: "Stop",
    text: "Stop this search? Its result has the candidates that have finished.",
    yes: "Stop the search",
  },
  cancel: {
    label: "Cancel",
    text: "Cancel this search? It ends now, without a result.",
    yes: "Cancel the search",
  },
};

const BUSY =
  "The kernel is busy with this cell. Press the notebook's Interrupt button (\u25A0): " +
  "the search ends with the candidates that have finished.";
const SILENT =
  "the kernel does not answer. If it is busy, interrupt its cell (a submitted search goes " +
  "on) and try again.";
const INTERRUPTED =
  "The kernel is busy with this cell, so it was interrupted: the search ends with the " +
  "candidates that have finished.";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(label, onClick, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", onClick);
  return made;
}

export function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const near = Math.abs(moment - Date.now()) < 12 * 3600 * 1000;
    const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
    const form = near ? clock : { month: "short", day: "numeric", ...clock };
    time.textContent = new Intl.DateTimeFormat(undefined, form).format(moment);
    time.title = moment.toLocaleString();
  }
}

/** Shows payloads in an element; `act(action)` returns a promise of a text to display. */
export class LiveView {
  constructor(root, act, shown = {}) {
    this.root = root;
    this.act = act;
    this.shown = shown; // outlives this view: the question that is open, the last words
    this.html = {};
    this.controls = element("div", { class: "dhps-controls" });
    this.asked = element("div", { class: "dhps-ask" });
    this.quiet = element("div", { class: "dhps-quiet", role: "status", "aria-live": "polite" });
    root.classList.add("dhps");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "Search progress");
    this.actions = null;
    this.announced = "";
  }

  update(payload) {
    if (!payload || !payload.parts) return;
    this.payload = payload;
    let before = null;
    for (const [name, html] of Object.entries(payload.parts)) {
      let part = this.root.querySelector(`:scope > [data-part="${name}"]`);
      if (this.html[name] !== html || !part) {
        const holder = document.createElement("template");
        holder.innerHTML = html; // the kernel or server has escaped all texts of users
        const made = holder.content.firstElementChild;
        localTimes(made);
        if (part) part.replaceWith(made);
        else if (before) before.after(made);
        else this.root.append(made);
        part = made;
        this.html[name] = html;
      }
      before = part;
    }
    if (!this.controls.isConnected) this.root.append(this.controls, this.asked, this.quiet);
    this.showControls(payload);
    this.announce(payload.announce || "");
  }

  showControls({ actions, workers }) {
    const key = actions.join();
    if (this.actions !== key) {
      this.actions = key;
      this.controls.replaceChildren();
      if (actions.includes("scale")) this.controls.append(this.scaleField(workers));
      for (const action of ["stop", "cancel"]) {
        if (actions.includes(action)) {
          this.controls.append(
            button(QUESTIONS[action].label, () => this.ask(action), { class: `dhps-${action}` }),
          );
        }
      }
      if (!actions.includes(this.shown.question)) this.shown.question = null;
      if (!actions.length) this.shown.said = "";
      this.showAsked();
    }
    if (this.workers && document.activeElement !== this.workers && !this.shown.scaling) {
      this.workers.value = workers;
    }
  }

  scaleField(workers) {
    const input = element("input", { type: "number", min: "0", step: "1", "aria-label": "workers" });
    input.value = workers;
    input.addEventListener("input", () => (this.shown.scaling = true));
    const scale = () => {
      const n = Number.parseInt(input.value, 10);
      this.shown.scaling = false;
      if (n >= 0) this.send({ action: "scale", n });
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation(); // keys of the notebook
      if (event.key === "Enter") scale();
    });
    this.workers = input;
    return element("label", {}, "Workers", input, button("Scale", scale));
  }

  ask(action) {
    this.shown.question = action;
    this.shown.said = "";
    this.showAsked();
    this.asked.querySelector("button")?.focus();
  }

  showAsked() {
    this.asked.replaceChildren();
    const question = QUESTIONS[this.shown.question];
    if (question) {
      const close = () => {
        this.shown.question = null;
        this.showAsked();
      };
      const yes = () => {
        const action = this.shown.question;
        close();
        this.send({ action });
      };
      const box = element(
        "div",
        { class: "dhps-question", role: "alertdialog", "aria-label": question.text },
        element("span", {}, question.text),
        button(question.yes, yes, { class: "dhps-strong" }),
        button("Go on", close),
      );
      box.addEventListener("keydown", (event) => event.key === "Escape" && close());
      this.asked.append(box);
    } else if (this.shown.said) {
      this.asked.append(element("p", { class: "dhps-said", role: "status" }, this.shown.said));
    }
  }

  async send(action) {
    this.say("Asking the search\u2026");
    try {
      this.say(await this.act(action, () => this.payload));
    } catch (error) {
      this.say(`That did not work: ${error.message || error}`);
    }
  }

  say(text) {
    this.shown.said = text;
    this.showAsked();
  }

  announce(text) {
    if (text !== this.announced) {
      this.announced = text;
      this.quiet.textContent = text;
    }
  }
}

// --- notebooks --------------------------------------------------------------------------

/** Sends an action to the kernel; interrupts a kernel that a fit keeps busy. */
function askKernel(model, pending) {
  return (action, payload) =>
    new Promise((resolve, reject) => {
      const number = pending.next++;
      const timer = setTimeout(async () => {
        pending.waiting.delete(number);
        const { blocks, actions } = payload();
        if (action.action !== "stop" || !blocks || !actions.includes("stop")) {
          reject(new Error(SILENT));
          return;
        }
        const kernel = model.widget_manager?.kernel;
        if (!kernel?.interrupt) return resolve(BUSY);
        await kernel.interrupt();
        resolve(INTERRUPTED);
      }, REPLY_TIMEOUT_MS);
      pending.waiting.set(number, (reply) => {
        clearTimeout(timer);
        reply.error ? reject(new Error(reply.error)) : resolve(reply.said);
      });
      model.send({ number, ...action });
    });
}

export default () => {
  const pending = { next: 1, waiting: new Map() };
  const shown = {}; // of all views of this model, so that a new one goes on where it was
  return {
    initialize({ model }) {
      model.on("msg:custom", (reply) => {
        pending.waiting.get(reply.number)?.(reply);
        pending.waiting.delete(reply.number);
      });
    },
    render({ model, el }) {
      const root = element("div");
      el.append(root);
      const view = new LiveView(root, askKernel(model, pending), shown);
      const update = () => view.update(model.get("payload"));
      model.on("change:payload", update);
      update();
      return () => model.off("change:payload", update);
    },
  };
};
