/* A browser starts no worker from a file. Opened from a disk, the search runs in a hidden frame instead. */
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    frame.title = "search";
    document.documentElement.append(frame);
    const inner = frame.contentWindow;
    inner.postMessage = (data) => this.say("message", { data });
    const script = inner.document.createElement("script");
    this.frame = frame;
    this.ready = new Promise((done) => { script.onload = done; });
    script.onerror = () => this.say("error", { message: `${url} cannot be loaded` });
    script.src = url;
    inner.document.head.append(script);
  }
  say(kind, details) {
    const event = Object.assign(new Event(kind), details);
    this.dispatchEvent(event);
    if (this[`on${kind}`]) this[`on${kind}`](event);
  }
  postMessage(data) {
    this.ready.then(() => {
      const inner = this.frame.contentWindow;
      if (inner) inner.dispatchEvent(new inner.MessageEvent("message", { data }));
    });
  }
  terminate() { this.frame.remove(); }
};
