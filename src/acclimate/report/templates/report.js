"use strict";
// The slider: which layers stand left and right of the divider, and where it is. The divider itself is a range input
// over the whole picture, so that mouse, touch and keyboard are the browser's own.
for (const box of document.querySelectorAll("[data-compare]")) {
  const scenes = [...box.querySelectorAll(".scene")];
  const thumbs = [...box.querySelectorAll(".thumb")];
  const left = box.querySelector("[data-side=left]");
  const right = box.querySelector("[data-side=right]");
  const strength = box.querySelector("[data-strength]");
  const title = (select) => select.selectedOptions[0].textContent.trim();

  function move(at) {
    for (const scene of scenes) {
      const handle = scene.querySelector(".handle");
      handle.value = at;
      handle.setAttribute("aria-valuetext", `${at} % ${title(left)}, ${100 - at} % ${title(right)}`);
      scene.style.setProperty("--at", at);
      scene.querySelector(".tag.left").classList.toggle("off", at < 15);
      scene.querySelector(".tag.right").classList.toggle("off", at > 85);
    }
  }

  function arrange() {
    for (const layer of box.querySelectorAll(".layer")) {
      const on = [left, right].filter((select) => select.value === layer.dataset.key);
      if (on.length) layer.dataset.on = on.length === 2 ? "both" : on[0].dataset.side;
      else delete layer.dataset.on;
    }
    for (const select of [left, right]) {
      for (const tag of box.querySelectorAll(`[data-tag=${select.dataset.side}]`)) tag.textContent = title(select);
    }
    move(Number(scenes[0].querySelector(".handle").value));
  }

  function show(number) {
    scenes.forEach((scene, index) => { scene.hidden = index !== number; });
    thumbs.forEach((thumb, index) => thumb.setAttribute("aria-pressed", String(index === number)));
  }

  thumbs.forEach((thumb, index) => {
    thumb.style.backgroundImage = scenes[index].style.getPropertyValue("--photo");
    thumb.addEventListener("click", () => show(index));
  });
  for (const scene of scenes) {
    scene.querySelector(".handle").addEventListener("input", (event) => move(Number(event.target.value)));
  }
  left.addEventListener("change", arrange);
  right.addEventListener("change", arrange);
  strength.addEventListener("input", () => {
    strength.setAttribute("aria-valuetext", `${strength.value} %`);
    for (const stage of box.querySelectorAll(".stage")) stage.style.setProperty("--strength", strength.value / 100);
  });
  arrange();
}
