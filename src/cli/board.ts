import type { Command } from 'commander';

export function addBoard(program: Command): void {
  program
    .command('board')
    .description('show the queues, health and metrics over HTTP, until SIGTERM or SIGINT')
    .addHelpText(
      'after',
      `
  /         what is going on, live            /healthz  200 while the process lives
  /queues   every queue and dead letter       /readyz   200 while events can be committed, else 503
  /metrics  for Prometheus

It listens on ANNALS_BOARD_HOST and ANNALS_BOARD_PORT, by default http://127.0.0.1:7300. Any address
but loopback takes a password or a token; health is told without. Exits with 0 when told to stop.

Examples:
  $ annals board
  $ ANNALS_BOARD_READ_ONLY=true annals board
  $ ANNALS_BOARD_HOST=0.0.0.0 ANNALS_BOARD_PASSWORD=… ANNALS_BOARD_TOKEN=… annals board
  $ curl -H "Authorization: Bearer $ANNALS_BOARD_TOKEN" http://annals.example:7300/metrics`,
    )
    .action(async () => {
      const { showBoard } = await import('./actions/board.ts');
      await showBoard();
    });
}
