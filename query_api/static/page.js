// Ids come from whoever published the pictures: they enter the page as text and URLs as encoded parts, never as markup.
"use strict";

const { tenant, maxBodyBytes } = document.body.dataset;
const base = `/v1/tenants/${encodeURIComponent(tenant)}`;
const byId = (id) => document.getElementById(id);
const imageUrl = (imageId, what) => `${base}/images/${encodeURIComponent(imageId)}/${what}`;
const PAGE = 48;
const HITS = 12;
let asked = null; // the query under way: a newer one ends it
let dropped = null; // the object URL of the picture that was sent

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the API does not answer");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new Error(body.error ? `${body.error.message} (${body.error.code})` : `status ${response.status}`);
}

function tile(imageId, note) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  const name = document.createElement("span");
  const small = document.createElement("small");
  button.type = "button";
  button.title = imageId;
  button.dataset.imageId = imageId;
  picture.alt = "";
  picture.loading = "lazy";
  picture.src = imageUrl(imageId, "thumbnail");
  picture.addEventListener("error", () => picture.classList.add("broken"));
  name.textContent = imageId;
  small.textContent = note;
  button.append(picture, name, small);
  button.addEventListener("click", () => similar(imageId));
  item.append(button);
  return item;
}

function show(title, source, answer) {
  byId("answer-title").textContent = title;
  byId("query").src = source;
  byId("hits").replaceChildren(...answer.hits.map((hit) => tile(hit.image_id, hit.score.toFixed(3))));
  byId("answer").hidden = false;
  byId("answer-title").focus({ preventScroll: true });
  byId("answer").scrollIntoView({ block: "nearest" });
  const how = answer.exact ? "exact" : "approximate";
  say(`${answer.hits.length} look-alikes in ${answer.took_ms.toFixed(1)} ms (${how}, ${answer.model}).`);
}

function forgetDropped() {
  if (dropped) URL.revokeObjectURL(dropped);
  dropped = null;
}

// Runs one query; a newer one cancels it, and only the newest says anything.
async function query(progress, run) {
  if (asked) asked.abort();
  const mine = (asked = new AbortController());
  say(progress);
  try {
    await run(mine.signal);
  } catch (error) {
    if (mine === asked && error.name !== "AbortError") say(`That did not work: ${error.message}`, true);
  }
}

function similar(imageId) {
  return query(`Looking for look-alikes of ${imageId} …`, async (signal) => {
    const answer = await ask(imageUrl(imageId, `similar?limit=${HITS}`), { signal });
    forgetDropped();
    show(`Look-alikes of ${imageId}`, imageUrl(imageId, "thumbnail"), answer);
  });
}

function search(file) {
  return query(`Sending ${file.name} …`, async (signal) => {
    if (file.size > Number(maxBodyBytes)) throw new Error(`${file.name} is too large (${maxBodyBytes} bytes at most)`);
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await ask(`${base}/search/upload?limit=${HITS}`, { method: "POST", body: file, headers, signal });
    forgetDropped();
    dropped = URL.createObjectURL(file);
    show(`Look-alikes of ${file.name}`, dropped, answer);
  });
}

async function more() {
  const button = byId("more");
  const cursor = button.dataset.cursor ? `&cursor=${encodeURIComponent(button.dataset.cursor)}` : "";
  button.disabled = true;
  try {
    const page = await ask(`${base}/images?state=indexed&limit=${PAGE}${cursor}`);
    byId("images").append(...page.images.map((image) => tile(image.image_id, size(image))));
    button.dataset.cursor = page.next_cursor ?? "";
    button.hidden = page.next_cursor === null;
    const n = byId("images").childElementCount;
    say(n ? `${n} pictures${button.hidden ? "" : " so far"}. Choose one to see its look-alikes.` : "No pictures yet.");
  } catch (error) {
    say(`The pictures cannot be shown: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

function size(image) {
  return image.width_px ? `${image.width_px} × ${image.height_px}` : "";
}

function take(files) {
  if (files.length) search(files[0]);
}

byId("more").addEventListener("click", more);
byId("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
byId("close").addEventListener("click", () => {
  byId("answer").hidden = true;
  forgetDropped();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // or the browser opens the file
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files);
});
more();
