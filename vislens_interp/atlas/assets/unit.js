// Keys on the page of a unit: the unit before, the unit after, the index.
const keys = { ArrowLeft: "before", ArrowRight: "after", i: "index" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(".edits")) return;
  document.getElementById(keys[event.key])?.click();
});
