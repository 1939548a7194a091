// What the pages do beyond links and forms. They can be read without it.
"use strict";

// A key moves to the search field.
document.addEventListener("keydown", (event) => {
  const typing = /^(input|textarea|select)$/i.test(event.target.tagName) || event.target.isContentEditable;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`);
  if (field) {
    event.preventDefault();
    field.focus();
  }
});

// The form of a comparison opens the comparison's own address.
for (const form of document.querySelectorAll("form[data-compare]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const ref = (name) => encodeURIComponent(form.elements[name].value.trim()).replaceAll("%2F", "/");
    location.assign(`${form.dataset.compare}/compare/${ref("from")}...${ref("to")}`);
  });
}

// Choosing a branch or tag opens it.
for (const select of document.querySelectorAll("[data-goto-select]")) {
  select.addEventListener("change", () => location.assign(select.value));
}

// Snippets can be copied.
for (const block of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
  });
  block.before(button);
}
