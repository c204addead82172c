// Airflow shows this page in a frame that may open no windows: the page around it opens the links.
const around = window.parent.document;
if (around !== document) {
  for (const link of document.querySelectorAll("a[target=_blank]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const copy = around.createElement("a");
      copy.href = link.href;
      copy.target = "_blank";
      copy.rel = "noopener noreferrer";
      around.body.append(copy);
      copy.click();
      copy.remove();
    });
  }
}

const against = document.getElementById("against");
if (against) {
  document.getElementById("compare").hidden = true;
  against.addEventListener("change", () => against.form.submit());
}
