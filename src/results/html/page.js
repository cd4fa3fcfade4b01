'use strict';
// The slices lie in the page as data; this shows one of them at a time.
const byId = (id) => document.getElementById(id);
const slices = JSON.parse(byId('slice-data').textContent);
const slider = byId('slider');

function show() {
  const slice = slices[slider.valueAsNumber];
  byId('slice-image').src = 'data:image/jpeg;base64,' + slice.image;
  byId('slice-image').alt = slice.description;
  byId('slice-overlay').src = 'data:image/png;base64,' + slice.overlay;
  byId('slice-caption').textContent = slice.caption;
  slider.setAttribute('aria-valuetext', slice.caption);
}

if (slices.length > 0) {
  slider.addEventListener('input', show);
  byId('slice-picture').addEventListener('wheel', (event) => {
    event.preventDefault();
    slider.valueAsNumber += Math.sign(event.deltaY);
    show();
  }, { passive: false });
  byId('slices').hidden = false;
  show();
}
