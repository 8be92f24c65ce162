"use strict";
// The report of a cohort: steps through its cases, and keeps their review in the browser until it is downloaded.
(() => {
  const byId = (id) => document.getElementById(id);
  const columns = JSON.parse(byId("columns").textContent);
  const inPage = JSON.parse(byId("marks").textContent); // the lines of review.csv when the page was made
  const key = `unetpp-segment review ${document.body.dataset.key}`;
  const cases = [...document.querySelectorAll(".case")];
  const known = new Set(cases.map((each) => each.dataset.case));
  const texts = new Map(cases.map((each) => [each, each.textContent.toLowerCase()]));
  let mine = []; // the lines made or loaded in this browser
  let valid = new Map(); // the latest line of each case
  let chosen = null; // the cases of a bar of a histogram
  let current = null;

  const say = (text) => { byId("message").textContent = text; };

  function stored() {
    try {
      return JSON.parse(localStorage.getItem(key)) || [];
    } catch (error) {
      return mine;
    }
  }

  function keep(lines) {
    mine = together(stored(), lines); // another tab may have added some
    try {
      localStorage.setItem(key, JSON.stringify(mine));
    } catch (error) {
      say("This browser cannot store your review: download review.csv before you close this page.");
    }
    follow();
  }

  function together(before, lines) {
    const seen = new Set();
    return [...before, ...lines].filter((line) => {
      const text = JSON.stringify(line);
      return !seen.has(text) && seen.add(text);
    });
  }

  const moment = (line) => Date.parse(/Z$|[+-]\d\d:?\d\d$/.test(line[4]) ? line[4] : `${line[4]}Z`) || 0;
  const all = () => together(inPage, mine).map((line, n) => [line, n])
    .sort((a, b) => moment(a[0]) - moment(b[0]) || a[1] - b[1]).map(([line]) => line);

  function follow() {
    valid = new Map(all().map((line) => [line[0], line]));
    cases.forEach(showMark);
    filter();
  }

  function showMark(each) {
    const [, verdict, comment, reviewer, time] = valid.get(each.dataset.case) || ["", "", "", "", ""];
    each.querySelector(".accept").setAttribute("aria-pressed", verdict === "accepted");
    each.querySelector(".flag").setAttribute("aria-pressed", verdict === "flagged");
    const field = each.querySelector(".comment");
    if (field !== document.activeElement) field.value = comment;
    each.querySelector(".who").textContent = [reviewer, time.slice(0, 16).replace("T", " ")].filter(Boolean).join(", ");
  }

  function mark(each, change) {
    const [, verdict, comment] = valid.get(each.dataset.case) || ["", "", ""];
    const now = { verdict, comment, ...change };
    if (now.verdict === verdict && now.comment === comment) return;
    say("");
    keep([[each.dataset.case, now.verdict, now.comment, byId("reviewer").value.trim(), new Date().toISOString()]]);
  }

  function toggle(each, verdict) {
    const [, before] = valid.get(each.dataset.case) || ["", ""];
    mark(each, { verdict: before === verdict ? "" : verdict });
  }

  function goTo(each) {
    if (!each) return;
    if (current) {
      current.classList.remove("current");
      current.removeAttribute("aria-current");
    }
    current = each;
    each.classList.add("current");
    each.setAttribute("aria-current", "true");
    each.focus({ preventScroll: true });
    each.scrollIntoView({ block: "start" });
  }

  function step(by) {
    const at = cases.indexOf(current); // its new verdict may have hidden it
    const further = by > 0 ? cases.slice(at + 1) : cases.slice(0, Math.max(0, at)).reverse();
    goTo(further.find((each) => !each.hidden));
  }

  function matches(each, words, show) {
    if (!words.every((word) => texts.get(each).includes(word) || (valid.get(each.dataset.case) || ["", "", ""])[2].toLowerCase().includes(word))) return false;
    if (chosen && !chosen.has(each.id)) return false;
    const verdict = (valid.get(each.dataset.case) || ["", ""])[1];
    if (show === "failed") return each.classList.contains("failed");
    if (show === "open") return !verdict;
    if (show === "accepted" || show === "flagged") return verdict === show;
    const notes = JSON.parse(each.dataset.notes);
    if (show === "noted") return notes.length > 0;
    return !show.startsWith("note:") || notes.includes(show.slice(5));
  }

  function filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const show = byId("show").value;
    let count = 0;
    cases.forEach((each) => {
      each.hidden = !matches(each, words, show);
      count += !each.hidden;
    });
    const flagged = [...valid.values()].filter((line) => known.has(line[0]) && line[1] === "flagged").length;
    const accepted = [...valid.values()].filter((line) => known.has(line[0]) && line[1] === "accepted").length;
    byId("count").textContent = `${count} of ${cases.length} shown, ${accepted} accepted, ${flagged} flagged`;
  }

  // As in core/table.py: a text that a spreadsheet would run as a formula gets an apostrophe.
  const toCell = (text) => (/^'*[=+@\t\r-]/.test(text) ? `'${text}` : text);
  const fromCell = (text) => (/^'+[=+@\t\r-]/.test(text) ? text.slice(1) : text);
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function download() {
    const text = [columns, ...all()].map((line) => line.map((text) => quoted(toCell(text))).join(",")).join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
    link.download = "review.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function parse(text) { // CSV as spreadsheets save it: quotes, any line ends, a byte order mark; commas, semicolons or tabs
    const body = text.replace(/^\ufeff/, "");
    const head = body.split(/\r?\n/, 1)[0];
    const comma = [",", ";", "\t"].sort((a, b) => head.split(b).length - head.split(a).length)[0];
    const rows = [[""]];
    let quoted = false;
    for (let i = 0; i < body.length; i += 1) {
      const row = rows[rows.length - 1];
      const at = row.length - 1;
      if (quoted) {
        if (body[i] !== '"') row[at] += body[i];
        else if (body[i + 1] === '"') { row[at] += '"'; i += 1; } else quoted = false;
      } else if (body[i] === '"') quoted = true;
      else if (body[i] === comma) row.push("");
      else if (body[i] === "\n") rows.push([""]);
      else if (body[i] !== "\r") row[at] += body[i];
    }
    const names = rows.shift().map((name) => name.trim());
    if (!names.includes("case") || !names.includes("verdict")) return null;
    const cell = (row, name) => row[names.indexOf(name)] || "";
    const tidy = (row, name) => fromCell(name === "case" ? cell(row, name) : cell(row, name).trim()); // a name may end with a space
    return rows.map((row) => columns.map((name) => tidy(row, name))).filter((line) => line[0]);
  }

  async function load(event) {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    const lines = parse(await file.text());
    if (!lines) {
      say(`${file.name} is not a review: its first line must name the columns ${columns.join(", ")}.`);
      return;
    }
    keep(lines);
    const unknown = lines.filter((line) => !known.has(line[0])).length;
    say(unknown ? `${unknown} lines are for cases that are not in this report; they are kept.` : "");
  }

  const commands = {
    n: () => step(1), p: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    a: () => current && toggle(current, "accepted"), f: () => current && toggle(current, "flagged"),
    c: () => current && current.querySelector(".comment").focus(), "/": () => byId("filter").focus(),
  };

  document.addEventListener("keydown", (event) => {
    const inField = event.target.matches("input, select");
    if (inField && (event.key === "Escape" || (event.key === "Enter" && event.target.matches(".comment")))) {
      event.target.blur();
      if (current) current.focus({ preventScroll: true });
    } else if (!inField && !event.ctrlKey && !event.metaKey && !event.altKey && commands[event.key]) {
      event.preventDefault();
      commands[event.key]();
    }
  });
  document.querySelector("main").addEventListener("click", (event) => {
    const each = event.target.closest(".case");
    if (!each) return;
    if (current !== each && !event.target.matches("input")) { const y = scrollY; goTo(each); scrollTo(0, y); }
    if (event.target.matches(".accept")) toggle(each, "accepted");
    if (event.target.matches(".flag")) toggle(each, "flagged");
  });
  document.querySelector("main").addEventListener("change", (event) => {
    if (event.target.matches(".comment")) mark(event.target.closest(".case"), { comment: event.target.value.trim() });
  });
  document.addEventListener("click", (event) => {
    const bar = event.target.closest(".bar");
    const outlier = event.target.closest(".outlier");
    if (bar) choose(JSON.parse(bar.dataset.cases), bar.dataset.label);
    if (outlier) {
      event.preventDefault();
      choose(null);
      byId("filter").value = byId("show").value = "";
      filter();
      goTo(document.querySelector(outlier.getAttribute("href")));
    }
  });

  function choose(numbers, label) {
    chosen = numbers && new Set(numbers.map((number) => `case-${number}`));
    byId("all").hidden = !chosen;
    byId("all").textContent = `${label} ×`;
    filter();
  }

  byId("all").addEventListener("click", () => choose(null));
  byId("filter").addEventListener("input", filter);
  byId("show").addEventListener("change", filter);
  byId("download").addEventListener("click", download);
  byId("load").addEventListener("change", load);
  byId("reviewer").addEventListener("change", () => {
    try { localStorage.setItem("unetpp-segment reviewer", byId("reviewer").value); } catch (error) { /* asked again next time */ }
  });
  addEventListener("storage", (event) => { if (event.key === key) { mine = stored(); follow(); } });
  try { byId("reviewer").value = localStorage.getItem("unetpp-segment reviewer") || ""; } catch (error) { /* empty */ }
  mine = stored();
  follow();
})();
