// Draws the charts, in the colours of the theme, as they come into view.
"use strict";
(() => {
  const holder = document.getElementById("charts");
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--text").trim();
    const grid = style.getPropertyValue("--line").trim();
    return {
      "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font.color": text,
      "xaxis.gridcolor": grid, "yaxis.gridcolor": grid,
      "xaxis.zerolinecolor": grid, "yaxis.zerolinecolor": grid,
    };
  };
  const drawn = new Set();
  const draw = async (figure, chart) => {
    const options = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["sendDataToCloud"] };
    await Plotly.newPlot(figure, chart.data, chart.layout, options);
    drawn.add(figure);
    await Plotly.relayout(figure, colours());
  };
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watch.unobserve(entry.target);
      draw(entry.target, CHARTS[entry.target.dataset.chart]);
    }
  }, { rootMargin: "300px" });
  CHARTS.forEach((chart, index) => {
    const figure = document.createElement("figure");
    figure.dataset.chart = index;
    figure.setAttribute("aria-label", chart.layout.title.text);
    holder.append(figure);
    watch.observe(figure);
  });
  document.addEventListener("theme", () => {
    for (const figure of drawn) Plotly.relayout(figure, colours());
  });
})();
