/** Curves of a run as SVG, drawn by ECharts without a browser. Both axes are logarithmic: sizes and results span decades. */
import { BarChart, LineChart } from 'echarts/charts'
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components'
import { init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'
import type { BenchRow, TestName } from './settings.js'

use([BarChart, LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer])

export interface Curve {
  readonly name: string
  readonly points: readonly (readonly [number, number])[]
}

export interface Picture {
  readonly title: string
  readonly x: string
  readonly y: string
  readonly curves: readonly Curve[]
}

const WIDTH = 800
const HEIGHT = 420
const colours = ['#2f6fde', '#e07b00', '#1a9a5a', '#b1328f', '#8a6d00', '#4a4f6a', '#d23c3c', '#00929c']
const TOP = 70
const BOTTOM = 60

/** One below the other. */
export function drawPictures(pictures: readonly Picture[]): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT * pictures.length })
  const each = pictures.map((picture, index) => ({ ...picture, index, top: index * HEIGHT }))
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: each.map(({ title, top }) => ({ text: title, top: top + 8, left: 12, textStyle: { fontSize: 15 } })),
    legend: each.map(({ curves, top, index }) => ({
      top: top + 34,
      left: 60,
      data: curves.map(({ name }) => seriesName(index, name)),
      formatter: (name: string) => name.slice(name.indexOf(' ') + 1),
    })),
    grid: each.map(({ top }) => ({ top: top + TOP, height: HEIGHT - TOP - BOTTOM, left: 70, right: 50 })),
    xAxis: each.map(({ x, index }) => ({
      ...axis(x, index),
      logBase: 2,
      min: 'dataMin' as const,
      max: 'dataMax' as const,
    })),
    yAxis: each.map(({ y, index }) => axis(y, index)),
    series: each.flatMap(({ curves, index }) =>
      curves.map(({ name, points }, number) => ({
        color: colours[number % colours.length]!,
        type: 'line' as const,
        name: seriesName(index, name),
        xAxisIndex: index,
        yAxisIndex: index,
        data: points.map((point) => [...point]),
        symbolSize: 5,
      })),
    ),
  })
  return finished(chart)
}

/** Legends tell curves apart by their names, so those of two pictures must differ. */
const seriesName = (picture: number, name: string): string => `${picture} ${name}`

const axis = (name: string, gridIndex: number) => ({
  type: 'log' as const,
  name,
  nameLocation: 'middle' as const,
  nameGap: 30,
  gridIndex,
})

/** Latencies, rates and bandwidths against sizes; rates against numbers of pairs. Tests with a single size become a point. */
export function drawResult(rows: readonly BenchRow[]): string {
  const pictures: Picture[] = [
    { title: 'Latency, p50', x: 'bytes', y: 'us', curves: curvesOf(rows, ['latency'], 'bytes', 'p50Us') },
    { title: 'Latency, p99', x: 'bytes', y: 'us', curves: curvesOf(rows, ['latency'], 'bytes', 'p99Us') },
    { title: 'Message rate', x: 'bytes', y: 'M/s', curves: curvesOf(rows, ['rate'], 'bytes', 'millionsPerSecond') },
    {
      title: 'Bandwidth',
      x: 'bytes',
      y: 'MB/s',
      curves: curvesOf(rows, ['rate', 'bandwidth'], 'bytes', 'megabytesPerSecond'),
    },
    {
      title: 'Message rate of all pairs',
      x: 'pairs',
      y: 'M/s',
      curves: curvesOf(rows, ['pairs'], 'pairs', 'millionsPerSecond'),
    },
    {
      title: 'Latency of many pairs, p50',
      x: 'pairs',
      y: 'us',
      curves: curvesOf(rows, ['pairs-latency'], 'pairs', 'p50Us'),
    },
  ]
  return drawPictures(pictures.filter(({ curves }) => curves.length > 0))
}

function curvesOf(rows: readonly BenchRow[], tests: readonly TestName[], x: 'bytes' | 'pairs', y: string): Curve[] {
  const curves = new Map<string, [number, number][]>()
  for (const row of rows) {
    const value = row.values[y]
    if (!tests.includes(row.test) || value === undefined || !(value > 0)) continue
    const what = x === 'pairs' ? `${row.work} ${row.bytes} B` : row.work
    const name = tests.length > 1 ? `${what} (${row.test})` : what
    const points = curves.get(name) ?? []
    points.push([row[x], value])
    curves.set(name, points)
  }
  return [...curves].map(([name, points]) => ({ name, points: points.sort(([a], [b]) => a - b) }))
}

export interface Bars {
  readonly title: string
  readonly unit: string
  readonly bars: readonly { readonly name: string; readonly value: number }[]
}

const BARS_HEIGHT = 240

/** Comparisons, one below the other, each with an axis of its own from nothing on. */
export function drawBars(comparisons: readonly Bars[]): string {
  const height = BARS_HEIGHT * comparisons.length
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height })
  const each = comparisons.map((one, index) => ({ ...one, index, top: index * BARS_HEIGHT }))
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: each.map(({ title, top }) => ({ text: title, top: top + 8, left: 12, textStyle: { fontSize: 14 } })),
    grid: each.map(({ top }) => ({ top: top + 36, height: BARS_HEIGHT - 86, left: 80, right: 80 })),
    xAxis: each.map(({ unit, index }) => ({ ...axis(unit, index), type: 'value' as const })),
    yAxis: each.map(({ bars, index }) => ({
      type: 'category' as const,
      gridIndex: index,
      inverse: true,
      data: bars.map(({ name }) => name),
    })),
    series: each.map(({ bars, index }) => ({
      type: 'bar' as const,
      xAxisIndex: index,
      yAxisIndex: index,
      itemStyle: { color: colours[0]! },
      data: bars.map(({ value }) => Number(value.toPrecision(3))),
      label: { show: true, position: 'right' as const },
    })),
  })
  return finished(chart)
}

function finished(chart: ReturnType<typeof init>): string {
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}
