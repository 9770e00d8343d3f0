// A confusion matrix: a click on a cell shows the pictures that were counted in it.
function showCell(cell) {
  const block = cell.closest(".matrix");
  const data = JSON.parse(block.querySelector("script").textContent);
  const chosen = data.cells[cell.dataset.cell] || [];
  for (const other of block.querySelectorAll("[data-cell].chosen")) other.classList.remove("chosen");
  cell.classList.add("chosen");
  const title = document.createElement("p");
  title.textContent = `${cell.title} (${chosen.length} of the pictures shown)`;
  const gallery = document.createElement("div");
  gallery.className = "gallery";
  for (const index of chosen) {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption");
    [image.src, image.alt] = data.pictures[index];
    caption.textContent = image.alt;
    figure.append(image, caption);
    gallery.append(figure);
  }
  block.querySelector(".pictures").replaceChildren(title, gallery);
}

document.addEventListener("click", (event) => {
  const cell = event.target.closest("[data-cell]");
  if (cell) showCell(cell);
});
