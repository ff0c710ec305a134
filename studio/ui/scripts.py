"""What the browser does by itself: keys, menus, pictures that come late, files that are saved. Knows no components."""

PICK = """
element.addEventListener('click', (event) => {
  const cell = event.target.closest('[data-layer]');
  if (cell) trigger('click', {layer: cell.dataset.layer});
});
element.addEventListener('pointerover', (event) => {
  const cell = event.target.closest('.cell');
  if (cell) cell.title = cell.ariaLabel;
});
element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('.cell');
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  let place = cell.closest('td');
  do {
    const row = place.parentElement;
    const line = step[0] ? row.parentElement.rows[row.sectionRowIndex + step[0]] : row;
    place = line && line.cells[place.cellIndex + step[1]];
  } while (place && !place.querySelector('.cell'));
  const next = place && place.querySelector('.cell');
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
"""
"""A click on a layer says which; arrows move from cell to cell, so that the map is one stop of the Tab key. What a cell
says to those who hear the page, it says under the pointer too."""
NEWEST = """
let newest = props.value;
const turn = (html) => Number(/data-turn="(\\d+)"/.exec(html)?.[1] ?? 0);
watch('value', () => {
  if (turn(props.value) < turn(newest)) props.value = newest;
  else newest = props.value;
});
"""
"""A picture that was begun before the one on show came too late: what it shows is no longer so."""
SAVE = """(file) => {
  const save = (tries) => {
    const button = document.querySelector('#export-file');
    if (button) button.click();
    else if (tries) setTimeout(save, 100, tries - 1);
  };
  if (file) setTimeout(save, 100, 300);
}"""
"""Press the file's own button once it is there: the first time, the browser has to fetch what draws it."""
MENUS = """() => {
  const still = new Set(['Tab', 'Shift', 'Control', 'Alt', 'Meta', 'CapsLock']);
  addEventListener('keydown', (event) => {
    if (!still.has(event.key) || event.target.role !== 'combobox') return;
    event.stopPropagation();
    const menu = document.getElementById(event.target.getAttribute('aria-controls'));
    if (event.key === 'Tab' && menu) menu.tabIndex = -1;
  }, true);
}"""
"""Gradio's menu takes a key that moves the focus, or only goes with another, for something typed: once its box is left
it opens again, and stays open. So such keys do not reach it, and Tab goes past the open list to the next control."""
PICK_POINT = """
const attach = () => {
  const chart = document.querySelector('#front-chart .js-plotly-plot');
  if (!chart || chart.dataset.picks || !chart.on) return;
  chart.dataset.picks = '1';
  chart.on('plotly_click', (event) => {
    const plan = event.points[0] && event.points[0].customdata;
    if (plan) trigger('click', {plan: Array.isArray(plan) ? plan[0] : plan});
  });
};
const panel = document.querySelector('#front-chart');
if (panel) new MutationObserver(attach).observe(panel, {childList: true, subtree: true});
attach();
"""
"""A click on a point of the chart says which plan it is."""
PICK_RUN = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-run]');
  if (button) trigger('click', {run: button.dataset.run});
});
element.addEventListener('change', (event) => {
  const tick = event.target.closest('input[data-tick]');
  if (tick) trigger('select', {tick: tick.dataset.tick});
});
"""
"""A button of the table says which run is planned again, a tick which one is compared."""
ADDRESS = """(choices) => {
  if (!choices) return;
  const query = new URLSearchParams(choices).toString();
  const place = location.pathname + (query ? '?' + query : '') + location.hash;
  if (place !== location.pathname + location.search + location.hash) history.replaceState(null, '', place);
}"""
"""The choices stand in the address, so that a link and a reload lead back to them."""
NAMES = """() => {
  const named = () => ['original', 'compressed'].forEach((id) => {
    const log = document.querySelector(`#${id} [role=log]`), label = document.querySelector(`#${id} label`);
    const name = label && label.textContent.trim();
    if (log && name && log.getAttribute('aria-label') !== name) log.setAttribute('aria-label', name);
  });
  const columns = document.querySelector('#columns');
  if (columns) new MutationObserver(named).observe(columns, {childList: true, subtree: true, characterData: true});
  named();
}"""
"""Both logs of the chat are named apart for whoever hears the page: by their columns' headings, in any language."""
