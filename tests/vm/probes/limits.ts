/** What the device offers, and what it rounds. */
import { verbsFactory } from '../guest/conformance.js'

export function probeLimits(): Record<string, unknown> {
  const device = verbsFactory.open('limits')
  const rounded: Record<number, number> = {}
  for (const wished of [1, 31, 32, 1000]) {
    device.createCompletionQueue(wished, (_, queue) => {
      rounded[wished] = queue?.capacity ?? 0
    })
  }
  const { capabilities } = device
  const port = device.port()
  device.close()
  return { capabilities, port, completionQueues: rounded }
}
